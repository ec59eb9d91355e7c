// One listener for every digest: copies the whole of what is shown in short. Plain http has no navigator.clipboard.
if (!window.wardroundCopies) {
  window.wardroundCopies = true;
  const copy = async (element) => {
    try {
      await navigator.clipboard.writeText(element.dataset.copy);
    } catch {
      const area = document.createElement("textarea");
      area.value = element.dataset.copy;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    element.classList.add("copied");
    setTimeout(() => element.classList.remove("copied"), 1500);
  };
  document.addEventListener("click", (event) => {
    const element = event.target.closest?.("[data-copy]");
    if (element) copy(element);
  });
  document.addEventListener("keydown", (event) => {
    const element = event.target.closest?.("[data-copy]");
    if (element && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); copy(element); }
  });
}
