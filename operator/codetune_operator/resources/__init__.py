"""The objects that the operator makes: from a spec to whole children. Pure: nothing here asks or tells an API server."""
