import threading

from transforms.progress import Progress


def test_counts_of_all_threads_add_up() -> None:
    progress = Progress()

    def count() -> None:
        for _ in range(1000):
            progress.add("embedded", 2)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.counts() == {"embedded": 8000}


def test_counts_are_a_copy() -> None:
    progress = Progress()
    progress.counts()["embedded"] = 5
    assert progress.counts() == {}
