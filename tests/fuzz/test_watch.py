"""Reading the kernel's trace: what is allowed to whom, and whose case it was."""

from __future__ import annotations

from tests.fuzz.watch import Deed, deeds

STATM = 'openat(AT_FDCWD, "/proc/self/statm", O_RDONLY|O_CLOEXEC) = 4'
CLOSES = "prlimit64(0, RLIMIT_NOFILE, {rlim_cur=0, rlim_max=0}, NULL) = 0"
PASSWORDS = 'openat(AT_FDCWD, "/etc/passwd", O_RDONLY) = -1 EACCES (Permission denied)'


def mark(number: object) -> str:
    return f'newfstatat(AT_FDCWD, "/fuzz-case/{number}", 0x7ffd, 0) = -1 ENOENT (No such file or directory)'


def seen(*calls: tuple[int, str]) -> list[Deed]:
    return list(deeds(f"{process_id}  {call}\n" for process_id, call in calls))


def test_what_is_opened_counts_for_the_case_between_its_marks() -> None:
    calls = [(1, PASSWORDS), (1, mark(7)), (1, PASSWORDS), (1, mark("end")), (1, PASSWORDS)]
    assert seen(*calls) == [Deed(7, 1, PASSWORDS)]


def test_a_new_decoder_may_look_at_its_size_and_take_limits() -> None:
    assert seen((1, mark(7)), (2, STATM), (2, CLOSES)) == []


def test_a_decoder_that_has_closed_itself_may_not_even_that() -> None:
    assert seen((1, mark(7)), (2, CLOSES), (2, STATM), (3, STATM)) == [Deed(7, 2, STATM)]


def test_a_limit_that_is_only_asked_for_closes_nothing() -> None:
    asked = "prlimit64(0, RLIMIT_NOFILE, NULL, {rlim_cur=20000, rlim_max=20000}) = 0"
    assert seen((1, mark(7)), (2, asked), (2, STATM)) == []


def test_a_call_that_another_process_interrupts_is_seen_once() -> None:
    began, ended = 'openat(AT_FDCWD, "/etc/passwd", O_RDONLY <unfinished ...>', "<... openat resumed>) = 3"
    assert seen((1, mark(7)), (2, began), (3, STATM), (2, ended)) == [Deed(7, 2, began)]


def test_sockets_and_programs_are_nobodys_right() -> None:
    calls = [
        "socket(AF_INET, SOCK_STREAM, 0) = 3",
        'execve("/bin/sh", ["sh"], 0x7ffd) = 0',
        "socket(AF_UNIX, 0, 0) = 3",
    ]
    assert [deed.call for deed in seen((1, mark(7)), *((2, call) for call in calls))] == calls
    assert seen((1, mark(7)), (2, "socketpair(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0, [3, 4]) = 0")) == []
