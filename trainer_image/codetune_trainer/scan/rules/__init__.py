"""What is to be said of one file by its path, its content and the licences of its folders. Pure: reads no source.

`judge` has the order of the rules.
"""
