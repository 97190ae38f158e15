"""The objects that the operator makes: from a spec to whole children. Pure: nothing here speaks to an API server."""
