"""Tables whose rooms come later: they are read, checked for their types and kept, and have no effect yet."""

from typing import Annotated, Final

from criollo.config.keys import Key, Table, Works
from criollo.config.values import Duration

_LATER: Final = Works.LATER


class CheckpointRestore(Table, frozen=True, kw_only=True):
    """Checkpoint and restore of containers: [crio.checkpoint_restore]."""

    container_level_enabled: Annotated[
        str,
        Key(
            "What is allowed: checkpoints of containers, and starting containers from them.",
            works=_LATER,
            choices=("none", "checkpoint_only", "checkpoint_restore"),
            flag="checkpoint-restore-container-level-enabled",
        ),
    ] = "checkpoint_only"


class NriValidator(Table, frozen=True, kw_only=True):
    """What plugins may not do: [crio.nri.default_validator]."""

    nri_enable_default_validator: Annotated[bool, Key("Check what plugins ask for.", works=_LATER)] = False
    nri_validator_reject_oci_hook_adjustment: Annotated[bool, Key("Plugins may add no hooks.", works=_LATER)] = False
    nri_validator_reject_runtime_default_seccomp_adjustment: Annotated[
        bool, Key("Plugins may not change the default seccomp profile.", works=_LATER)
    ] = False
    nri_validator_reject_unconfined_seccomp_adjustment: Annotated[
        bool, Key("Plugins may not change an unconfined container's seccomp.", works=_LATER)
    ] = False
    nri_validator_reject_custom_seccomp_adjustment: Annotated[
        bool, Key("Plugins may not change a pod's own seccomp profile.", works=_LATER)
    ] = False
    nri_validator_reject_namespace_adjustment: Annotated[bool, Key("Plugins may change no namespaces.", works=_LATER)] = False
    nri_validator_required_plugins: Annotated[
        tuple[str, ...], Key("Plugins without which no container is created.", works=_LATER)
    ] = ()
    nri_validator_tolerate_missing_plugins_annotation: Annotated[
        str, Key("Pod annotation that lets a pod do without required plugins.", works=_LATER)
    ] = ""


class Nri(Table, frozen=True, kw_only=True):
    """Node resource plugins: [crio.nri]."""

    enable_nri: Annotated[bool, Key("Let plugins connect and start.", works=_LATER)] = True
    nri_listen: Annotated[str, Key("Socket for plugins.", works=_LATER, absolute=True)] = "/var/run/nri/nri.sock"
    nri_plugin_dir: Annotated[str, Key("Plugins to start.", works=_LATER, absolute=True)] = "/opt/nri/plugins"
    nri_plugin_config_dir: Annotated[str, Key("Configuration of plugins.", works=_LATER, absolute=True)] = "/etc/nri/conf.d"
    nri_disable_connections: Annotated[bool, Key("Only plugins the daemon starts itself.", works=_LATER)] = False
    nri_plugin_registration_timeout: Annotated[Duration, Key("How long a plugin may take to register.", works=_LATER)] = (
        Duration(5.0, "5s")
    )
    nri_plugin_request_timeout: Annotated[Duration, Key("How long a plugin may take to answer.", works=_LATER)] = Duration(
        2.0, "2s"
    )
    default_validator: NriValidator = NriValidator()
