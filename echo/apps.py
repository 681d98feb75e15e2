from django.apps import AppConfig


class EchoConfig(AppConfig):
    name = "echo"
    verbose_name = "Connections"

    def ready(self) -> None:
        from echo import checks  # noqa: F401  (registers them)
