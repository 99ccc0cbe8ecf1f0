"""The LightningModules: RoleModule turns a batch into gradients, TeamModule steps, logs and checkpoints."""
