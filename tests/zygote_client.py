"""The caller's side of tests/zygote.py: it sends all that a program gets, and waits for its exit status."""

# ruff: noqa: PTH109
# It starts for each call, so it imports as little as possible.

import array
import json
import os
import socket
import struct
import sys

address, *words = sys.argv[1:]
request = json.dumps({"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
call = socket.socket(socket.AF_UNIX)
call.connect(address)
streams = array.array("i", [0, 1, 2])
call.sendmsg([struct.pack("<I", len(request))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
call.sendall(request)
status = call.recv(4)
sys.exit(struct.unpack("<I", status)[0] if len(status) == 4 else 1)
