from django.apps import AppConfig
from django.core.signals import request_started
from django.utils.translation import pgettext_lazy


class EchoConfig(AppConfig):
    name = "echo"
    verbose_name = pgettext_lazy("echo", "Connections")

    def ready(self) -> None:
        from echo import checks  # noqa: F401  (registers them)
        from echo.signals.sender import ensure_announced_by

        request_started.connect(ensure_announced_by)
