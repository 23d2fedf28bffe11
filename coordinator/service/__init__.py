"""gRPC servicers: translate, check, call the core."""
