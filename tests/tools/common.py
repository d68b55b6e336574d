"""What the tests here share: the jars, a broker of either kind, processes that end with the test, checks that are counted."""
import contextlib, fcntl, os, re, shutil, signal, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CACHE = os.environ.get('CNK_TEST_CACHE') or os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 'chronik-tests')
RUN_KAFKA = os.path.join(ROOT, 'tests/bench/kafka/run-kafka')
CHRONIKD = os.environ.get('CHRONIKD') or os.path.join(ROOT, 'build/release/bin/chronikd')


def jars():
    """The class path of what pom.xml names, fetched once. Ends the program with 77 where that cannot be had."""
    pom = os.path.join(HERE, 'pom.xml')
    version = re.search(r'<kafka.version>(.*)</kafka.version>', open(pom).read())[1]
    folder = os.path.join(CACHE, 'kafka-tools-' + version)
    stamp = os.path.join(folder, '.complete')
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, 'kafka-tools.lock'), 'w') as lock:  # tests run at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetch(pom, folder, stamp)
    return os.path.join(folder, '*')


def fetch(pom, folder, stamp):
    if not os.path.exists(stamp) or open(stamp).read() != open(pom).read():
        if not shutil.which('javac') or not shutil.which('mvn'):
            print('Java or Maven is missing')
            sys.exit(77)
        shutil.rmtree(folder, ignore_errors=True)
        if subprocess.run(['mvn', '-q', '-B', '-f', pom, 'dependency:copy-dependencies', f'-DoutputDirectory={folder}', '-DincludeScope=runtime'],
                          stdout=subprocess.DEVNULL).returncode:
            print('the jars of Apache Kafka cannot be had')
            sys.exit(77)
        with open(stamp, 'w') as f: f.write(open(pom).read())


def kind():
    """--broker chronikd|kafka"""
    return sys.argv[sys.argv.index('--broker') + 1] if '--broker' in sys.argv else 'chronikd'


def java(path):
    """Starts Java with this class path: for programs that run for seconds."""
    return ['java', '-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', path]


def compiled(program, into):
    """The class path with the program, compiled."""
    path = jars()
    subprocess.run(['javac', '-nowarn', '-cp', path, '-d', into, os.path.join(HERE, program + '.java')], check=True)
    return path + ':' + into


class Broker:
    """Apache Kafka or chronikd, on a directory of its own and a port that the kernel picks."""
    def __init__(self, kind, options=()):
        self.kind, self.options, self.port = kind, options, '0'
        self.temporary = tempfile.TemporaryDirectory(prefix='chronik-tools.')
        self.data = os.path.realpath(self.temporary.name)
        self.start()

    def start(self):
        argv, env = [RUN_KAFKA], dict(os.environ, KAFKA_CONFIG='\n'.join(self.options))
        if self.kind == 'chronikd':
            argv = [CHRONIKD, '--http-port', '0', '--bind', '127.0.0.1']
            for name, value in (x.split('=') for x in self.options): argv += ['--' + name.replace('.', '-'), value]
        elif subprocess.run([RUN_KAFKA, '--fetch-only'], stdout=subprocess.DEVNULL).returncode:
            print('the jars of Apache Kafka cannot be had')
            sys.exit(77)
        self.process = subprocess.Popen(argv + ['--kafka-port', self.port, '--data-dir', os.path.join(self.data, 'broker')],
                                        stdout=subprocess.PIPE, text=True, env=env)
        ready = re.search(r'kafka=(\S+)', self.process.stdout.readline())
        if not ready: sys.exit('the broker did not start')
        self.address = ready[1]
        self.port = self.address.split(':')[1]

    def stop(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        self.process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None: self.stop()
        self.temporary.cleanup()


@contextlib.contextmanager
def running(argv, **more):
    """A process that is killed at the end, where it still runs."""
    process = subprocess.Popen(argv, **more)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def limit(seconds):
    """The whole test may take so long."""
    def late(*_):
        sys.exit(f'FAIL: not done after {seconds} s')
    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)


class Checks:
    passed = failed = 0

    def __call__(self, name, holds, found=''):
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        print(f'ok {name}' if holds else f'FAIL {name}: {found}')

    def report(self):
        print(f'{self.passed} passed, {self.failed} failed')
        sys.exit(self.failed > 0)
