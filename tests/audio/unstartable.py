"""A decoding process that lacks a library."""


def main() -> None:
    raise ImportError("there is no such library")
