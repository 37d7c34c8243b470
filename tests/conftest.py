"""What all tests share: a folder of their own for the state that runs share, in place of the user's."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_rate_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Paces that earlier runs on this machine have learnt are nothing to the tests, nor the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", os.fspath(tmp_path_factory.mktemp("runtime")))
        yield
