"""Leads Beam's BigQuery client to the server that BIGQUERY_EMULATOR_HOST names; for processes whose PYTHONPATH begins with this folder.

Google's own client reads that variable. Beam's has one address, a constant of its class, which is changed here as the class's
module is imported, in worker processes too. Nothing is imported that would not have been.
"""

import importlib.util
import os
import sys

_MODULE = "apache_beam.io.gcp.internal.clients.bigquery.bigquery_v2_client"


class _Finder:
    def find_spec(self, name, path=None, target=None):
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            module.BigqueryV2.BASE_URL = os.environ["BIGQUERY_EMULATOR_HOST"].rstrip("/") + "/bigquery/v2/"

        spec.loader.exec_module = exec_module
        return spec


if "BIGQUERY_EMULATOR_HOST" in os.environ:
    sys.meta_path.insert(0, _Finder())
