"""What a group has committed for partition 0 of the topic of its name, as soon as that is COUNT at least.

    committed.py BROKER TOPIC COUNT          prints the offset; what it was in the end, and 1, if that never came"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../crash"))
import raw  # noqa: E402

broker, topic, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection, deadline = raw.Connection(broker), time.time() + 60
while True:
    try:
        offset = connection.committed(topic, topic)
    except OSError as e:  # the coordinator may still be on its way
        offset = e
    if not isinstance(offset, OSError) and offset >= count or time.time() > deadline:
        break
    time.sleep(0.05)
print(offset)
sys.exit(isinstance(offset, OSError) or offset < count)
