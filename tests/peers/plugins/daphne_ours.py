"""A pytest plugin, `-p daphne_ours`: our server, request and command line in the place of Daphne's.

It knows the installed `echo` and Daphne only, since it runs among Daphne's tests.
"""

import importlib
import sys

import daphne.cli
import daphne.http_protocol
import daphne.testing

from echo.server.daphne import http, server

Stock = daphne.http_protocol.WebRequest
stock_reinstall_reactor = daphne.testing._reinstall_reactor


def reinstall_reactor() -> None:
    """Do in a server's new process what Daphne's tests do there, and put our server in place.

    They drop `daphne.server`, which has the reactor of the first process, as our modules do.
    """
    stock_reinstall_reactor()
    daphne.http_protocol.WebRequest = Stock  # what ours is made from
    for module in (http, server):
        del sys.modules[module.__name__]
    new = importlib.import_module("daphne.server")  # first, since ours imports it
    new.Server = importlib.import_module(server.__name__).Server


daphne.testing._reinstall_reactor = reinstall_reactor
daphne.cli.CommandLineInterface = server.CommandLineInterface
daphne.http_protocol.WebRequest = http.Request
