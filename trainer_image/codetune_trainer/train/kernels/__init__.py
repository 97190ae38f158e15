"""Hand-written forward and backward passes for what a training step spends its time on, besides plain products.

Each module replaces one thing of a stock model (transformers, PEFT), after it has checked on the module at hand that
both compute the same; what it does not know stays stock. `installing` puts them in place. Nothing here changes weights,
names or what is saved.
"""
