"""Deep copies of API objects. Pure."""

import pickle

from codetune_local.machinery.objects import Obj


def copy_object(obj: Obj) -> Obj:
    """A copy that shares nothing with its original, in a fraction of the time of `copy.deepcopy`."""
    copied: Obj = pickle.loads(pickle.dumps(obj, pickle.HIGHEST_PROTOCOL))
    return copied
