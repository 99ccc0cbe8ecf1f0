"""The LightningModules: RoleModule computes one role's gradients; TeamModule steps, logs and checkpoints all roles."""
