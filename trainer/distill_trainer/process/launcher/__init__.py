"""The container's entry point: torchrun's agent, and the zygote from which ranks are forked."""
