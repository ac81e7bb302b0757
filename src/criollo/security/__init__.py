"""What a container may do: capabilities today; seccomp, AppArmor and SELinux belong here too."""
