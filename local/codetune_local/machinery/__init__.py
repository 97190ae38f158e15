"""What controllers and kubelet have in common: reading objects, work queues, actions, Events. Knows no kind by name."""
