"""What runs in serving pods: stock vLLM, started for the pod that it is in, with the adapter middleware inside it.

vLLM is reached through its public command line and HTTP routes only: nothing in here imports it.
"""

__version__ = "0.1.0"
