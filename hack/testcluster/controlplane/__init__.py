"""etcd, the API server and its controllers, and access to them with kubectl and helm."""
