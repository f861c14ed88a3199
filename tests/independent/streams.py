"""Counts and hashes what followers were shown, beside what the journal holds for their subtrees.

    python3 tests/independent/streams.py FOLDER

FOLDER has a store, whose segments are read here by docs/format.md alone, and for each follower a file `follower.N` with the lines
that it has said over all its lives: `shown SEQUENCE NUMBER` for each batch, whose last change sets a value to the DWORD
NUMBER, and `acknowledged SEQUENCE`. Follower N follows the key `K\\N`. Exits with 1 where a stream is not the journal's.
"""

import hashlib
import pathlib
import struct
import sys
import zlib

SEGMENT_HEADER = 128
FRAME_HEADER = 64


def frames(folder):
    """Each record's sequence number and payload, in order, with every rule of a frame and of the chain checked."""
    expected, previous = 1, 0
    for path in sorted((folder / "store" / "journal").glob("*.segment")):
        data = path.read_bytes()
        nonce = data[32:48]
        assert zlib.crc32(data[:124]) == struct.unpack_from("<I", data, 124)[0], path
        first, = struct.unpack_from("<Q", data, 48)
        assert first == expected == int(path.stem), path
        assert struct.unpack_from("<I", data, 64)[0] == previous, path
        at = SEGMENT_HEADER
        while at + FRAME_HEADER <= len(data):
            checksum, before, durable, length, kind, sequence = struct.unpack_from("<IIQIIQ", data, at)
            if sequence == 0:
                break
            end = at + (FRAME_HEADER + length + 7) // 8 * 8
            found = zlib.crc32(data[at + 4:end], zlib.crc32(struct.pack("<Q", at), zlib.crc32(nonce)))
            assert found == checksum and before == previous, f"{path} at {at}"
            assert sequence == expected and durable < sequence and kind in (1, 2), f"{path} at {at}"
            yield sequence, data[at + FRAME_HEADER:at + FRAME_HEADER + length]
            at, previous, expected = end, checksum, expected + 1
        assert not any(data[at:]), f"{path} at {at}"


def text(payload, at):
    length, = struct.unpack_from("<Q", payload, at)
    return payload[at + 8:at + 8 + length], at + 8 + length


def last_dword(payload):
    """The key of the record's last run, and the DWORD that its last change sets."""
    runs, _, acknowledged = struct.unpack_from("<IIB", payload)
    at = 9 + 24 * acknowledged
    for _ in range(runs):
        key, at = text(payload, at)
        changes, length = struct.unpack_from("<II", payload, at)
        at += 8
        run_end = at + length
        for _ in range(changes):
            command = payload[at]
            _, at = text(payload, at + 2)
            value = None
            for which in ("value", "previous"):
                at += 1
                if payload[at - 1]:
                    kind, = struct.unpack_from("<I", payload, at)
                    data, at = text(payload, at + 4)
                    value = (kind, data) if which == "value" else value
        assert at == run_end
    assert command == 1 and value[0] == 4 and at == len(payload)
    return key.decode(), int.from_bytes(value[1], "little")


def heard(path):
    """What a follower was shown, and how many batches came again: none of them after it was acknowledged."""
    shown, acknowledged, again = [], 0, 0
    for line in path.read_text().splitlines():
        match line.split(" "):
            case ["shown", sequence, number]:
                pair = int(sequence), int(number)
                assert pair[0] > acknowledged, f"{path}: {sequence} came after it was acknowledged"
                while shown and shown[-1][0] >= pair[0]:
                    shown.pop()
                    again += 1
                shown.append(pair)
            case ["acknowledged", sequence]:
                acknowledged = int(sequence)
    return shown, again


def digest(stream):
    whole = hashlib.sha256()
    for sequence, number in stream:
        whole.update(struct.pack("<QI", sequence, number))
    return whole.hexdigest()


def main(folder):
    journal, records = {}, 0
    for sequence, payload in frames(folder):
        key, number = last_dword(payload)
        journal.setdefault(key, []).append((sequence, number))
        records += 1
    print(f"the journal: {records} records")
    followers = sorted(folder.glob("follower.*"))
    wrong = not followers
    for path in followers:
        shown, again = heard(path)
        expected = journal.pop("K\\" + path.suffix[1:], [])
        is_right = len(shown) == len(expected) and digest(shown) == digest(expected)
        wrong |= not is_right
        print(f"{path.name}: {len(shown)} of {len(expected)} batches, {again} again, "
              f"sha256 {digest(shown)[:16]}… {'is' if is_right else 'IS NOT'} the journal's")
    assert not journal, f"nobody follows {list(journal)}"
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
