"""The demo's settings, and a clock that is wrong by CLOCK_OFFSET seconds.

libfaketime would be nearer to the truth, but breaks `time.sleep` of Python 3.11 and newer
(libfaketime 0.9.10: its clock_nanosleep gives EINVAL).
"""

import os
import time

from project.settings import *  # noqa: F403

_right_time = time.time
_offset = float(os.environ["CLOCK_OFFSET"])

time.time = lambda: _right_time() + _offset
