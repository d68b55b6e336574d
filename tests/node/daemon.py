"""Starting and stopping a chronikd for tests."""
import os, queue, re, select, shutil, signal, subprocess, tempfile, threading, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get('CNK_BUILD', os.path.join(ROOT, 'build/release')))
CHRONIKD = os.environ.get('CHRONIKD', os.path.join(BUILD, 'bin/chronikd'))


def clean_env(**more):
    return {**{k: v for k, v in os.environ.items() if not k.startswith(('CHRONIK_', 'RUST_LOG'))}, **more}


def run(*argv, env=None, timeout=20, cwd=None):
    return subprocess.run([CHRONIKD, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                          env=env or clean_env(), cwd=cwd)


class Daemon:
    """One chronikd on a directory and a port that the kernel picks, or a given one; use it with `with`."""

    def __init__(self, directory, *options, wait=20, env=None, port=0):
        self.log = tempfile.TemporaryFile()
        began = time.monotonic()
        self.process = subprocess.Popen(
            [CHRONIKD, 'start', '--data-dir', directory, '--bind', '127.0.0.1', '--kafka-port', str(port), '--http-port', '0',
             *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=env or clean_env())
        ready, _, _ = select.select([self.process.stdout], [], [], wait)
        self.line = self.process.stdout.readline().strip() if ready else ''
        self.start_seconds = time.monotonic() - began
        if not self.line.startswith('ready '):
            self.kill()
            raise RuntimeError(f'not ready: {self.line!r}\n{self.logged()}')
        self.addresses = dict(word.split('=', 1) for word in self.line.split()[1:])
        self.kafka = self.addresses['kafka']

    def logged(self):
        self.log.seek(0)
        return self.log.read().decode('utf-8', 'replace')

    def stop(self, sig=signal.SIGTERM, timeout=20):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return 'timeout'

    def kill(self):
        return self.stop(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.process.stdout.close()
        self.log.close()


class Tests:
    """Functions named test_…, run in order; each gets a directory of its own."""

    def main(self, functions):
        passed = failed = skipped = 0
        for name, function in functions:
            directory = tempfile.mkdtemp(prefix='chronik-test-')
            try:
                reason = function(directory)
                if isinstance(reason, str):
                    skipped += 1
                    print(f'skip {name}: {reason}')
                else:
                    passed += 1
            except Exception as e:
                failed += 1
                import traceback
                traceback.print_exc()
                print(f'FAIL {name}: {e}', flush=True)
            finally:
                shutil.rmtree(directory, ignore_errors=True)
        print(f'{passed} passed, {failed} failed' + (f', {skipped} skipped' if skipped else ''))
        return 1 if failed else 0


def main(scope):
    return Tests().main([(n, f) for n, f in scope.items() if n.startswith('test_') and callable(f)])
