"""What a ModelDeployment makes: the server's Deployment and Service, and what surrounds its pods. Pure."""
