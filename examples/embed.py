#!/usr/bin/env python3
"""A broker inside a Python program, through ctypes and nothing else.

    python3 embed.py DIRECTORY      (LIBCHRONIK names the library, where it is not installed)
"""
import ctypes, os, select, sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p


class Error(ctypes.Structure):
    _fields_ = [('code', c_int), ('sys_errno', c_int), ('text', ctypes.c_char * 248)]


class Record(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('offset', c_int64), ('timestamp_ms', c_int64), ('key', c_void_p),
                ('key_len', c_size_t), ('value', c_void_p), ('value_len', c_size_t), ('headers', c_void_p),
                ('header_count', c_size_t)]


READY, FAILED, STOPPED, LOG, TOPIC, PRODUCED, FETCHED = 1, 3, 5, 6, 16, 17, 18
ETOPICEXISTS = -46

lib = ctypes.CDLL(os.environ.get('LIBCHRONIK', 'libchronik.so.0.1'))
for name, result, arguments in (
        ('chronik_config_new', c_int, [POINTER(c_void_p)]),
        ('chronik_config_set', c_int, [c_void_p, c_char_p, c_char_p, POINTER(Error)]),
        ('chronik_config_free', None, [c_void_p]),
        ('chronik_queue_new', c_int, [POINTER(Error), POINTER(c_void_p)]),
        ('chronik_queue_fd', c_int, [c_void_p]),
        ('chronik_queue_poll', c_int, [c_void_p, c_int, POINTER(c_void_p)]),
        ('chronik_queue_free', None, [c_void_p]),
        ('chronik_event_type', c_int, [c_void_p]),
        ('chronik_event_error', c_int, [c_void_p]),
        ('chronik_event_text', c_char_p, [c_void_p]),
        ('chronik_event_a', c_int64, [c_void_p]),
        ('chronik_event_record', c_int, [c_void_p, POINTER(Record)]),
        ('chronik_event_free', None, [c_void_p]),
        ('chronik_node_new', c_int, [c_void_p, c_void_p, POINTER(Error), POINTER(c_void_p)]),
        ('chronik_node_start', c_int, [c_void_p, POINTER(Error)]),
        ('chronik_node_stop', None, [c_void_p, c_int]),
        ('chronik_node_free', None, [c_void_p]),
        ('chronik_topic_create', c_int, [c_void_p, c_char_p, c_void_p, c_void_p, c_void_p]),
        ('chronik_produce', c_int, [c_void_p, c_char_p, c_int32, POINTER(Record), c_size_t, c_void_p, c_void_p]),
        ('chronik_fetch', c_int, [c_void_p, c_char_p, c_int32, c_int64, c_void_p, c_void_p, c_void_p])):
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments


class Node:
    def __init__(self, **options):
        self.error, self.queue, self.node, config = Error(), c_void_p(), c_void_p(), c_void_p()
        self.check(lib.chronik_config_new(byref(config)))
        for name, value in options.items():
            self.check(lib.chronik_config_set(config, name.encode(), str(value).encode(), byref(self.error)))
        self.check(lib.chronik_queue_new(byref(self.error), byref(self.queue)))
        self.check(lib.chronik_node_new(config, self.queue, byref(self.error), byref(self.node)))
        lib.chronik_config_free(config)
        self.check(lib.chronik_node_start(self.node, byref(self.error)))

    def check(self, code):
        if code < 0:
            raise RuntimeError(self.error.text.decode() or f'error {code}')

    def wait_for(self, kind):
        """The next event of the kind. The queue's descriptor fits into any poll set; asyncio would add a reader."""
        event = c_void_p()
        while True:
            select.select([lib.chronik_queue_fd(self.queue)], [], [], 60)
            if lib.chronik_queue_poll(self.queue, 0, byref(event)) != 1:
                raise RuntimeError('nothing happened for a minute')
            its = lib.chronik_event_type(event)
            if its == kind:
                return event
            if its == FAILED:
                raise RuntimeError(lib.chronik_event_text(event).decode())
            lib.chronik_event_free(event)

    def close(self):
        lib.chronik_node_stop(self.node, 5000)
        lib.chronik_event_free(self.wait_for(STOPPED))
        lib.chronik_node_free(self.node)
        lib.chronik_queue_free(self.queue)


node = Node(data_dir=sys.argv[1] if len(sys.argv) > 1 else './data', bind='127.0.0.1', kafka_port=0, http_enable='false')
event = node.wait_for(READY)
print('serving at', lib.chronik_event_text(event).decode())
lib.chronik_event_free(event)

node.check(lib.chronik_topic_create(node.node, b'snakes', None, node.queue, None))
event = node.wait_for(TOPIC)
assert lib.chronik_event_error(event) in (0, ETOPICEXISTS), lib.chronik_event_text(event)
lib.chronik_event_free(event)

value = b'python'
record = Record(ctypes.sizeof(Record), -1, -1, None, 0, ctypes.cast(c_char_p(value), c_void_p), len(value), None, 0)
node.check(lib.chronik_produce(node.node, b'snakes', 0, byref(record), 1, node.queue, None))
event = node.wait_for(PRODUCED)
assert lib.chronik_event_error(event) == 0, lib.chronik_event_text(event)
offset = lib.chronik_event_a(event)
lib.chronik_event_free(event)

node.check(lib.chronik_fetch(node.node, b'snakes', 0, offset, None, node.queue, None))
event = node.wait_for(FETCHED)
assert lib.chronik_event_error(event) == 0, lib.chronik_event_text(event)
found = Record(ctypes.sizeof(Record))
assert lib.chronik_event_record(event, byref(found)) == 1
print(f'{found.offset}: {ctypes.string_at(found.value, found.value_len).decode()}')
assert ctypes.string_at(found.value, found.value_len) == value and found.offset == offset
lib.chronik_event_free(event)
node.close()
print('done')
