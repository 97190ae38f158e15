"""Who is asking and what they may: certificates, tokens, RBAC, and the roles that are there from the beginning."""
