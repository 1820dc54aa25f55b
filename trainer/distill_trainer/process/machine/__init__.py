"""CPU quota, memory and prctl: what Linux allows and tells this container."""
