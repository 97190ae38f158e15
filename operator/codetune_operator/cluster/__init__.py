"""All I/O of the operator: one verb a module, over the official client. The layer to replace in tests.

Only this package imports `kubernetes`. Nothing here decides anything; errors come out as those of `errors`.
"""
