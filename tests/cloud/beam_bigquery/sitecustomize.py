"""Leads Beam's BigQuery client to the server that BIGQUERY_EMULATOR_HOST names; for processes whose PYTHONPATH begins with this folder.

Google's own client reads that variable. Beam's has one address, a constant of its class, which is changed here as the class's
module is imported, in worker processes too; so is the time between two looks at a load job, 10 s. Nothing is imported that would
not have been.
"""

import importlib.util
import os
import sys

_CLIENT = "apache_beam.io.gcp.internal.clients.bigquery.bigquery_v2_client"
_LOADS = "apache_beam.io.gcp.bigquery_file_loads"


def _change(module):
    if module.__name__ == _CLIENT:
        module.BigqueryV2.BASE_URL = os.environ["BIGQUERY_EMULATOR_HOST"].rstrip("/") + "/bigquery/v2/"
    else:
        module._SLEEP_DURATION_BETWEEN_POLLS = 0.2


class _Finder:
    def __init__(self, module):
        self._module = module

    def find_spec(self, name, path=None, target=None):
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            _change(module)

        spec.loader.exec_module = exec_module
        return spec


if "BIGQUERY_EMULATOR_HOST" in os.environ:
    sys.meta_path[:0] = [_Finder(_CLIENT), _Finder(_LOADS)]
