from django.apps import AppConfig
from django.core.signals import request_started
from django.utils.translation import pgettext_lazy


class EchoConfig(AppConfig):
    name = "echo"
    verbose_name = pgettext_lazy("echo", "Connections")

    def ready(self) -> None:
        from echo import checks  # noqa: F401  (registers the checks)
        from echo.signals.sender import start_sender
        from echo.state import state_created

        state_created.connect(start_sender)
        request_started.connect(start_sender)
