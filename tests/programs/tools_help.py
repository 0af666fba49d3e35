"""Run ``--help`` of tools, each as a command would, in one process.

Usage: tools_help.py TOOL.py...
Prints a JSON object: of each tool its exit code, its output and its errors.
"""

import contextlib
import io
import json
import runpy
import sys
import traceback


def ask_for_help(tool):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = [tool, '--help']
    code = None  # of a tool that ends without an exit
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(tool, run_name='__main__')
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
    return code, out.getvalue(), err.getvalue()


print(json.dumps({tool: ask_for_help(tool) for tool in sys.argv[1:]}))
