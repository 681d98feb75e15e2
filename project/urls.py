from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    # Last: it answers every path that nothing above has taken.
    path("", include("echo.urls")),
]
