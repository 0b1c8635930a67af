"""Does the decoder's memory grow with a fragmented MP4? Before, FFmpeg had all of it; now it has windows.

    python -m benchmarks.fragments_memory                                   # 1 and 5 hours, each way: three minutes
    python -m benchmarks.fragments_memory --hours 43 --fragment-s 1 10 --index none sidx mfra

AAC at 48 kHz, mono, made while it is read. Decoded in a process of its own as the confined one does it, once as a whole
(`before`) and once in windows (`now`), in turns. Prints JSON: the most that was resident, seconds of processor time to
the first sample and in all, how many times over the file was fetched, and whether the samples are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
from typing import Any

from benchmarks.made_fragments import FragmentedM4a
from benchmarks.resident import resident
from consumer.audio import opening
from consumer.audio.decoder_process import decode, rehearse
from consumer.audio.protocol import Kind, Order, parse_ending, parse_read, receive, send
from consumer.audio.source import ReadAhead


def heard(hours: float, fragment_s: float, index: str, way: str) -> dict[str, Any]:
    """Decode one recording in a process of its own."""
    recording = FragmentedM4a(hours * 3600, fragment_s, index)
    ours, its = socket.socketpair()
    command = [sys.executable, "-m", "benchmarks.fragments_memory", "--decode", way, str(its.fileno())]
    command.append(str(recording.size_bytes))
    with ReadAhead(recording) as ahead, subprocess.Popen(command, pass_fds=[its.fileno()]) as process, ours:
        its.close()
        found = _served(ours, ahead, process.pid)
    return {**found, "recording_bytes": recording.size_bytes, "fetched_times": ahead.fetched_bytes / ahead.size_bytes}


def _served(link: socket.socket, source: ReadAhead, process_id: int) -> dict[str, Any]:
    digest, samples, to_first_s, peak_bytes = hashlib.sha256(), 0, 0.0, 0
    while True:
        message = receive(link)
        assert message is not None, "the decoder died"
        kind, payload = message
        if kind is Kind.READ:
            send(link, Kind.DATA, source.read(*parse_read(payload)))
        elif kind is Kind.PCM:
            to_first_s = to_first_s or _processor_s(process_id)
            samples += len(payload) // 2
            digest.update(payload)
        elif kind is Kind.END:
            assert parse_ending(payload).broken_off is None
            peak_bytes = (resident(process_id) or (0, 0))[1]
            return {
                "peak_bytes": peak_bytes,
                "to_first_sample_s": round(to_first_s, 2),
                "in_all_s": round(_processor_s(process_id), 1),
                "samples": samples,
                "digest": digest.hexdigest(),
            }


def _processor_s(process_id: int) -> float:
    with open(f"/proc/{process_id}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def decode_here(way: str, link: socket.socket, size_bytes: int) -> None:
    """What the confined process does, without its walls."""
    rehearse()
    if way == "before":
        setattr(opening, "in_fragments", lambda *_: None)  # noqa: B010 (what it was before there were windows)
    decode(link, Order(size_bytes, 1 << 31, 1 << 16))
    link.recv(1)  # until it was measured


def compared(hours: float, fragment_s: float, index: str) -> dict[str, Any]:
    ways = {way: heard(hours, fragment_s, index, way) for way in ("before", "now")}
    same = len({(one.pop("samples"), one.pop("digest")) for one in ways.values()}) == 1
    return {"hours": hours, "fragment_s": fragment_s, "index": index, **ways, "same_samples": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", nargs="+", type=float, default=[1.0, 5.0])
    parser.add_argument("--fragment-s", nargs="+", type=float, default=[1.0])
    parser.add_argument("--index", nargs="+", choices=["none", "sidx", "mfra"], default=["none"])
    parser.add_argument("--decode", nargs=3, metavar=("WAY", "LINK", "BYTES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.decode:
        way, link, size_bytes = arguments.decode
        decode_here(way, socket.socket(fileno=int(link)), int(size_bytes))
        return
    results = [
        compared(hours, fragment_s, index)
        for hours in arguments.hours
        for fragment_s in arguments.fragment_s
        for index in arguments.index
    ]
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
