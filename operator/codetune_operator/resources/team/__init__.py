"""What a Team makes: the gateway's Deployment and Service, and what surrounds its pods. Pure."""
