"""What the tests of abuse share: a broker, a well-behaved neighbour beside the hostile clients, and what must hold after
each part: the broker lives, serves, and has its memory and its sockets back."""
import argparse
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '../node')]
import raw  # noqa: E402
from daemon import Daemon  # noqa: E402

MEMORY_MB = 300  # more than all budgets together that a part can use up; a leak or a believed length goes past it
PATIENCE_S = 60  # nobody well-behaved waits longer, on any machine
P99_MAX_S = 5    # likewise, nearly always


def arguments(**more):
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', type=int, default=int(os.environ.get('CNK_TEST_SEED', time.time())))
    parser.add_argument('--only', help='parts whose names have this in them')
    parser.add_argument('--table', action='store_true', help="the neighbour's latencies at the end, in milliseconds")
    for name, default in more.items():
        parser.add_argument('--' + name, type=type(default), default=default)
    return parser.parse_known_args()[0]


def sample(pid):
    """(seconds of CPU, MB of memory, sockets)"""
    stat = open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()
    cpu = (int(stat[11]) + int(stat[12])) / os.sysconf('SC_CLK_TCK')
    rss = int(re.search(r'VmRSS:\s+(\d+)', open(f'/proc/{pid}/status').read()).group(1)) / 1024
    return cpu, rss, sum(1 for n in os.listdir(f'/proc/{pid}/fd') if is_socket(f'/proc/{pid}/fd/{n}'))


def is_socket(path):
    try:
        return os.readlink(path).startswith('socket:')
    except OSError:
        return False  # closed meanwhile


def drain(s, seconds=5):
    """Whether the broker closes the connection within that time; what it sends is dropped."""
    s.settimeout(seconds)
    try:
        while s.recv(65536):
            pass
        return True
    except socket.timeout:
        return False
    except OSError:
        return True


class Neighbour:
    def __init__(self, address):
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, 'neighbour.py'), address],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def answer(self):
        said = json.loads(self.process.stdout.readline() or '{"error": "it is gone"}')
        assert 'error' not in said, f'the neighbour: {said["error"]}'
        return said

    def since_last(self):
        try:
            self.process.stdin.write('\n')
            self.process.stdin.flush()
        except OSError:
            pass  # its last words say why
        return self.answer()

    def end(self):
        """All that it has written is there."""
        self.process.stdin.close()
        said = self.answer()
        self.process.wait(PATIENCE_S)
        return said

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Abuse:
    """A broker that parts are played against."""

    def __init__(self, args, *options):
        self.args, self.options = args, options
        self.rng = random.Random(args.seed)
        self.passed = self.failed = self.skipped = 0
        self.rows = []
        self.tmp = tempfile.mkdtemp(prefix='chronik-abuse.')

    def connect(self):
        host, port = self.broker.kafka.rsplit(':', 1)
        return socket.create_connection((host, int(port)), 30)

    def sample(self):
        return sample(self.broker.process.pid)

    def metrics(self):
        """Samples of /metrics by name, labels and all."""
        with urllib.request.urlopen(f'http://{self.broker.addresses["http"]}/metrics', timeout=PATIENCE_S) as answer:
            lines = answer.read().decode().splitlines()
        return {k: float(v) for k, v in (line.rsplit(' ', 1) for line in lines if not line.startswith('#'))}

    def serves(self, tag):
        """Another well-behaved client's view."""
        c = raw.Connection(self.broker.kafka, PATIENCE_S)
        name = f'well-{tag}'
        error = c.create_topic(name)
        assert error == 0, f'CreateTopics: error {error}'
        values = [b'value %d of %s' % (i, tag.encode()) for i in range(10)]
        assert c.produce(name, raw.batch(values)) == (0, 0), 'Produce failed'
        assert c.read_all(name) == values, 'another content came back'
        c.close()

    def owes(self):
        """What has not been given back; None: all is as it was."""
        _, rss, sockets = self.sample()
        m = self.metrics()
        held = {k: v for k, v in m.items() if k.startswith(('chronik_memory_used_bytes', 'chronik_waiting_produces')) and v}
        held = {k: v for k, v in held.items() if not re.search('fetch_memory|fetch_sessions|wal_unsynced', k)}  # also the neighbour's
        if sockets > self.sockets_before:
            return f'{sockets} sockets are open, {self.sockets_before} were at first'
        if held:
            return f'not given back: {held}'
        return f'{rss:.0f} MB of memory' if rss >= MEMORY_MB else None

    def after(self, name):
        assert self.broker.process.poll() is None, f'the broker is gone: exit {self.broker.process.returncode}'
        self.serves(name)
        deadline = time.monotonic() + PATIENCE_S
        owed = self.owes()
        while owed and time.monotonic() < deadline:  # closing takes a moment
            time.sleep(0.1)
            owed = self.owes()
        assert owed is None, owed

    def part(self, name, function):
        try:
            self.neighbour.since_last()
            self.peak()
            began = time.monotonic()
            why = function()
            while self.args.table and not why and time.monotonic() < began + 5:  # long enough to be measured
                function()
            said = {**self.neighbour.since_last(), 'peak': self.peak()}
            self.after(name)
            assert said['p99'] <= P99_MAX_S, f'the neighbour waited for {said["p99"]:.1f} s'
            if why:
                self.skipped += 1
                print(f'skip {name}: {why}', flush=True)
                return
            self.passed += 1
            self.rows.append((name, said))
            print(f'ok {name} ({self.sample()[1]:.0f} MB, {said["peak"]:.0f} at most; neighbour p99 {said["p99"] * 1000:.1f} ms)', flush=True)
        except Exception as e:  # any failure is told, and the other parts run
            self.failed += 1
            print(f'FAIL {name}, seed {self.args.seed}: {type(e).__name__}: {e}', flush=True)

    def peak(self):
        """The most memory that it had since the last time, in MB."""
        pid = self.broker.process.pid
        most = int(re.search(r'VmHWM:\s+(\d+)', open(f'/proc/{pid}/status').read()).group(1)) / 1024
        with open(f'/proc/{pid}/clear_refs', 'w') as f:
            f.write('5')
        return most

    def idle(self):
        """What is left to do when nobody asks for anything; the neighbour has left."""
        time.sleep(3)
        cpu0 = self.sample()[0]
        time.sleep(5)
        cpu = self.sample()[0] - cpu0
        assert cpu <= 0.02, f'{cpu * 20:.1f} % CPU while idle'

    def beside_a_busy_machine(self):
        """Nothing but another program on the machine that computes, as the hostile clients do."""
        code = 'import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: sum(range(1000))'
        subprocess.run([sys.executable, '-c', code], check=True)

    def conclude(self, name, function):
        try:
            said = function()
            self.passed += 1
            print(f'ok {name}{said or ""}', flush=True)
        except Exception as e:
            self.failed += 1
            print(f'FAIL {name}, seed {self.args.seed}: {type(e).__name__}: {e}\n{self.broker.logged()[-2000:]}', flush=True)

    def ends_well(self):
        """The neighbour has lost nothing; nobody is connected; all rests; it stops."""
        self.conclude('the neighbour', lambda: f' has its {self.neighbour.end()["records"]} records')
        self.neighbour.kill()
        self.conclude('idle', self.idle)

        def stop():
            code = self.broker.stop()
            assert code == 0, f'exit {code}'
        self.conclude('stop', stop)

    def table(self):
        base = self.rows[0][1]['p99'] if self.rows else 0
        print(f'{"":24} {"calls":>7} {"p50":>8} {"p99":>8} {"max":>8} {"p99 to the first":>17} {"MB":>6}')
        for name, r in self.rows:
            ratio = r['p99'] / base if base else 0
            print(f'{name:24} {r["count"]:7} {r["p50"] * 1e3:8.2f} {r["p99"] * 1e3:8.2f} {r["max"] * 1e3:8.2f} {ratio:17.2f} {r["peak"]:6.0f}')

    def run(self, parts):
        """parts: (name, function) pairs; the exit code."""
        try:
            with Daemon(os.path.join(self.tmp, 'data'), *self.options) as self.broker:
                self.serves('first')
                self.neighbour = Neighbour(self.broker.kafka)
                try:
                    self.neighbour.since_last()
                    time.sleep(1)
                    self.sockets_before = self.sample()[2]
                    if self.args.table:
                        os.nice(19)  # hostile clients compute elsewhere: the broker and the neighbour have the processors first
                    self.part('nothing', lambda: time.sleep(1))
                    if self.args.table:
                        self.part('a-busy-machine', self.beside_a_busy_machine)
                    for name, function in parts:
                        if not self.args.only or self.args.only in name:
                            self.part(name, function)
                    self.ends_well()
                finally:
                    self.neighbour.kill()
        finally:
            shutil.rmtree(self.tmp, ignore_errors=True)
        if self.args.table:
            self.table()
        print(f'{self.passed} passed, {self.failed} failed' + (f', {self.skipped} skipped' if self.skipped else ''))
        return 1 if self.failed else 0
