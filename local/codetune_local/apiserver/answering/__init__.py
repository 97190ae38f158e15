"""How requests are read and answered: objects, lists, watches, tables, subresources, discovery."""
