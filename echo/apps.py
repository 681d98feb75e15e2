from django.apps import AppConfig, apps
from django.core.signals import request_started
from django.utils.translation import pgettext_lazy


class EchoConfig(AppConfig):
    name = "echo"
    verbose_name = pgettext_lazy("echo", "Connections")

    def ready(self) -> None:
        from echo import checks  # noqa: F401  (registers the checks)
        from echo.signals.sender import start_sender
        from echo.state import state_created

        if apps.is_installed("django.contrib.auth"):
            from django.contrib.auth import user_logged_out

            from echo.counting.logins import close_session

            user_logged_out.connect(close_session)
        state_created.connect(start_sender)
        request_started.connect(start_sender)
