"""What `sftlab.train.memory` computes from: configurations, activations, moments, throughput."""
