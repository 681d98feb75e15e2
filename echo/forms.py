"""The forms of the admin's page of one object."""

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from echo.extensions import MAX_REASON_BYTES


class SendForm(forms.Form):
    text = forms.CharField(
        label=pgettext_lazy("echo", "Text"),
        strip=False,
        widget=AdminTextareaWidget({"rows": 3, "dir": "auto"}),
    )

    def clean_text(self) -> str:
        """Return the text with LF line ends: HTML forms are submitted with CRLF."""
        return str(self.cleaned_data["text"]).replace("\r\n", "\n")


class CloseForm(forms.Form):
    code = forms.IntegerField(
        label=pgettext_lazy("echo", "Code"),
        initial=1000,
        help_text=_("1000, or 3000 to 4999 of your own."),
        widget=forms.NumberInput({"min": 1000, "max": 4999, "class": "vIntegerField"}),
    )
    reason = forms.CharField(
        label=pgettext_lazy("echo", "Reason"),
        required=False,
        help_text=_("At most 123 bytes of UTF-8."),
        widget=AdminTextInputWidget({"dir": "auto"}),
    )

    def clean_code(self) -> int:
        code = int(self.cleaned_data["code"])
        if code != 1000 and not 3000 <= code <= 4999:
            raise forms.ValidationError(gettext("Use 1000, or 3000 to 4999 of your own."))
        return code

    def clean_reason(self) -> str:
        reason = str(self.cleaned_data["reason"])
        if (size := len(reason.encode())) > MAX_REASON_BYTES:
            raise forms.ValidationError(
                gettext("A reason has at most 123 bytes of UTF-8; this one has %d.") % size
            )
        return reason
