"""The catalogue as text: downloaded, and brought back with every change told in words before anything is written."""

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_http_methods, require_safe

from billing_site.console.studio.pages import MAY_LOOK, page, permitted
from billing_site.http.problems import DomainError
from billing_site.staff import actor_of
from subscriptions.selectors.catalog_text import catalog_text
from subscriptions.selectors.clock import wall_now
from subscriptions.services.catalog_text import changes_digest, import_catalog

BYTES_MAX = 2 * 1024 * 1024
FILE_NAME = "catalogue.yaml"
# An import may make and change all of these, and publish.
MAY_IMPORT = tuple(
    f"subscriptions.{verb}_{model}" for model in ("meter", "tier", "tierversion") for verb in ("add", "change")
)


class ImportForm(forms.Form):
    """A text, typed or as a file, and what it was said to change."""

    text = forms.CharField(
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 18, "spellcheck": "false"}),
        help_text="The catalogue as the download has it, whole or in part. What it leaves out stays as it is.",
    )
    file = forms.FileField(required=False, label="or a file", help_text=f"At most {BYTES_MAX // 1024**2} MB of text.")
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def clean(self) -> dict[str, object]:
        """Take the text from the file where there is one."""
        cleaned = super().clean() or {}
        file = cleaned.get("file")
        if isinstance(file, UploadedFile):
            cleaned["text"] = self._read(file)
        if not str(cleaned.get("text") or "").strip():
            raise forms.ValidationError("Type or paste a text, or choose a file.")
        return cleaned

    def _read(self, file: UploadedFile) -> str:
        if (file.size or 0) > BYTES_MAX:
            raise forms.ValidationError("The file is too large.")
        try:
            return file.read().decode()
        except UnicodeDecodeError:
            raise forms.ValidationError("The file is no text in UTF-8.") from None


@require_http_methods(["GET", "HEAD", "POST"])
@permitted(MAY_LOOK)
def show(request: HttpRequest) -> HttpResponse:
    """Ask for a text; show what it would change; import it once that has been seen."""
    if request.method != "POST":
        return _answer(request, ImportForm())
    if not request.user.has_perms(MAY_IMPORT):
        raise PermissionDenied
    form = ImportForm(request.POST, request.FILES)
    if not form.is_valid():
        return _answer(request, form, status=422)
    text, seen = form.cleaned_data["text"], form.cleaned_data["seen"]
    is_final = "import" in request.POST
    try:
        changes = import_catalog(
            text=text, now=wall_now(), actor=actor_of(request), dry_run=not is_final, seen=seen if is_final else None
        )
    except DomainError as refusal:
        return _answer(request, ImportForm(initial={"text": text}), refusal=refusal, status=refusal.status)
    if is_final:
        messages.success(request, f"The catalogue was imported; changes: {len(changes):,}.")
        return HttpResponseRedirect(reverse("admin:studio_catalog"))
    told = ImportForm(initial={"text": text, "seen": changes_digest(text, changes)})
    return _answer(request, told, changes=changes, was_looked_at=True)


@require_safe
@permitted(MAY_LOOK)
def download(request: HttpRequest) -> HttpResponse:
    """Return the catalogue as a file."""
    headers = {"Content-Disposition": f'attachment; filename="{FILE_NAME}"'}
    return HttpResponse(catalog_text(), content_type="application/yaml; charset=utf-8", headers=headers)


def _answer(request: HttpRequest, form: ImportForm, *, status: int = 200, **context: object) -> TemplateResponse:
    may_import = request.user.has_perms(MAY_IMPORT)
    title = "The catalogue as text"
    return page(request, "studio/catalog.html", title=title, status=status, form=form, may_import=may_import, **context)


paths: list[URLPattern] = [
    path("catalog/", show, name="studio_catalog"),
    path("catalog/download/", download, name="studio_catalog_download"),
]
