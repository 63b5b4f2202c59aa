"""What `sftlab.train.sweep` is made of: plan, queue, processes, store, and the resulting frame."""
