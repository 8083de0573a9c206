import pytest

from mobjrec import errors
from mobjrec.errors import MISTAKES, NumericError, PeerError, RunFolderError, UserError

CODES = {UserError: 2, RunFolderError: 3, NumericError: 4, PeerError: 5}


def test_every_mistake_has_its_own_exit_code():
    assert {kind: kind.code for kind in MISTAKES} == CODES
    assert {*MISTAKES, errors.Stopped} == {
        one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)
    }


@pytest.mark.parametrize("kind", MISTAKES)
def test_no_mistake_is_a_kind_of_another(kind):
    assert kind.__bases__ == (Exception,)
