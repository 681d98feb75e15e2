import pytest

pytest.register_assert_rewrite("tests.wire.replay")  # so that it tells what differs
