#!/usr/bin/env python3
"""Writes fragment-1MiB.bin: the BLAKE3 tree of a fragment of 1 MiB, so that the gas of real proofs can be measured.

Byte j of chunk i is (31 j + 17 i + (i >> 8)) mod 256. The file holds 32 bytes for each node: the 1,024 chunks' chaining values, then
each level above, and the fragment's id last. Plain BLAKE3 as in the paper, sections 2.1 to 2.5.
"""
import pathlib, struct

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
QUARTERS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
M = 0xFFFFFFFF


def compress(chaining, block, counter, flags):
    v = list(chaining) + list(IV[:4]) + [counter & M, counter >> 32, 64, flags]
    m = struct.unpack("<16I", block)
    for _ in range(7):
        for n, (a, b, c, d) in enumerate(QUARTERS):
            for word, turn, twist in ((m[2 * n], 16, 12), (m[2 * n + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & M
                x = v[d] ^ v[a]
                v[d] = (x >> turn | x << (32 - turn)) & M
                v[c] = (v[c] + v[d]) & M
                x = v[b] ^ v[c]
                v[b] = (x >> twist | x << (32 - twist)) & M
        m = [m[n] for n in ORDER]
    return [v[n] ^ v[n + 8] for n in range(8)]


def chunk(index):
    data = bytes((31 * j + 17 * index + (index >> 8)) & 255 for j in range(1024))
    value = IV
    for n in range(16):
        flags = (CHUNK_START if n == 0 else 0) | (CHUNK_END if n == 15 else 0)
        value = compress(value, data[64 * n : 64 * n + 64], index, flags)
    return struct.pack("<8I", *value)


level = [chunk(index) for index in range(1024)]
tree = list(level)
while len(level) > 1:
    flags = PARENT | (ROOT if len(level) == 2 else 0)
    level = [
        struct.pack("<8I", *compress(IV, level[n] + level[n + 1], 0, flags)) for n in range(0, len(level), 2)
    ]
    tree += level
pathlib.Path(__file__).with_name("fragment-1MiB.bin").write_bytes(b"".join(tree))
