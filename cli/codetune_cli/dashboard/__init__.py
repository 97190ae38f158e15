"""`kubectl codetune dashboard`: what stands on the resources, as pages in a browser on this machine.

It runs where kubectl runs, with its user's own rights, and only reads: nothing is deployed in the cluster, and nobody
but who was given its address by the command gets an answer. `following` keeps the resources, `pages` and `charts` turn
them into HTML (pure), `serving` answers the browser.
"""
