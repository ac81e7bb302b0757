"""What a container may do: capabilities, seccomp filters, AppArmor profiles, SELinux labels."""
