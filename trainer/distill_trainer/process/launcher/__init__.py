"""The container's entry point: torchrun's agent, and the zygote that ranks are forked from."""
