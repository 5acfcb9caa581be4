"""Reads an LMDB in a process of its own: its library aborts the process over damaged pages.

The program: arguments path and "keys" or "values"; on its input, for values, a msgpack list of the
first key and how many to read from there. On its output a msgpack stream of one kind of map each:
{"key": …, "value": …}, {"error": …}, and at the end {"done": True}. It imports nothing of dav.
"""

import itertools
import os
import sys


def main():
    path, what = sys.argv[1:]
    out = sys.stdout.buffer
    import lmdb
    import msgpack

    try:
        for record in _records(lmdb, path, what, msgpack.unpackb(sys.stdin.buffer.read())):
            out.write(msgpack.packb(record))
        out.write(msgpack.packb({"done": True}))
    except lmdb.Error as error:
        out.write(msgpack.packb({"error": f"it is damaged or unreadable ({error})"}))
    out.flush()


def _records(lmdb, path, what, wanted):
    folder = os.path.isdir(path)
    data = os.path.join(path, "data.mdb") if folder else path
    with lmdb.open(path, subdir=folder, readonly=True, lock=False, create=False) as environment:
        information, statistics = environment.info(), environment.stat()
        expected = (information["last_pgno"] + 1) * statistics["psize"]
        if os.path.getsize(data) < expected:
            found = os.path.getsize(data)
            yield {"error": f"it holds {found} of {expected} bytes: a half-finished download?"}
            return
        with environment.begin() as transaction:
            if what == "keys":
                yield from _keys(transaction, statistics["entries"])
                return
            yield from _values(transaction, *wanted)


def _values(transaction, first, count):
    cursor = transaction.cursor()
    if not (cursor.set_key(first) if first else cursor.first()):
        yield {"error": f"it has no key {first!r}"}
        return
    found = 0
    for key, value in itertools.islice(cursor.iternext(), count):
        found += 1
        yield {"key": key, "value": value}
    if found < count:
        yield {"error": f"it has {found} entries from {first!r} on, not {count}"}


def _keys(transaction, entries):
    count = 0
    for count, key in enumerate(transaction.cursor().iternext(keys=True, values=False), 1):
        if count > entries:  # damaged pages may lead in a circle
            break
        yield {"key": key}
    if count != entries:
        yield {"error": f"it is damaged ({entries} entries are declared, {count} found)"}


if __name__ == "__main__":
    main()
